"""Recipes, their configurations and studies; installed as `ascl_plugin.recipes`."""
