"""What else can be stopped, or told the deadline: a module for each library."""
