"""What stands before composing a configuration: flags, overrides, groups, plugins, and the checks of a command line."""
