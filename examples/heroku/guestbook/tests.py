from django.test import TestCase


class GuestbookTest(TestCase):
    def test_an_entry_is_written_and_shown(self):
        self.assertRedirects(self.client.post("/", {"text": "hello"}), "/")
        self.assertContains(self.client.get("/"), "somebody: hello")

    def test_a_probe_is_answered(self):
        self.assertEqual(self.client.get("/healthz").status_code, 200)
