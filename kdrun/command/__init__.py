"""What happens to a command line until its configuration is composed: flags, overrides, groups, plugins, checks."""
