from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("guestbook", "0001_initial")]

    operations = [
        migrations.AddField("entry", "author", models.CharField(max_length=50, default="somebody")),
    ]
