"""The registry of types that JSON lacks: for each one how to know it, write it, read it, show it.

One `Kind` a type, in small modules by family; `registry` finds the kind of a value or of a marker.
No family imports its library: a type is known by its name, and can only be met where it is loaded.
"""
