from django.urls import path

from guestbook import views

urlpatterns = [
    path("", views.entries),
    path("report", views.report),
    path("healthz", views.healthz),
]
