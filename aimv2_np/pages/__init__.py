"""What self-contained HTML pages are made of: markup, pictures, plots, and a style they share."""
