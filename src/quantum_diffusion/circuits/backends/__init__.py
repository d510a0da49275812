"""Bridges to other quantum libraries."""
