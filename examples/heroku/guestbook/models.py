from django.db import models


class Entry(models.Model):
    text = models.CharField(max_length=200)
    author = models.CharField(max_length=50, default="somebody")
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-written_at"]

    def __str__(self):
        return f"{self.author}: {self.text}"
