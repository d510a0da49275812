"""Bridges to other quantum libraries, for exchange, drawing and verification of circuits."""
