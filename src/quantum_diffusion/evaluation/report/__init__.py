"""Reports for people: tables, pictures and the HTML page."""
