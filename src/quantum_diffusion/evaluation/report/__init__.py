"""Human-readable reports: tables, pictures and the HTML page."""
