"""What gunicorn has no option for that every version knows, or what is not worth one.

Named on the command line, it also takes the place of a ``gunicorn.conf.py`` that may lie
where the demo is started.
"""

# Two gunicorns would quarrel about one socket in the home directory. Older ones have none,
# and refuse the option, but not the name here.
control_socket_disable = True
