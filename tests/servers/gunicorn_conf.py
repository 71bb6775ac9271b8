"""What gunicorn has no option for that every version knows."""

# Two gunicorns would quarrel about one socket in the home directory. Older ones have none,
# and refuse the option, but not the name here.
control_socket_disable = True
