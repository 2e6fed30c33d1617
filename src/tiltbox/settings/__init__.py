"""Typed settings: variants, schedules, datasets and the workflow's own.

Unknown keys are refused, and every error names the file, the key, the contradiction and the fix.
"""
