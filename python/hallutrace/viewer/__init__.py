"""What a person looks at: data for it, the page, report, explorer, figures."""
