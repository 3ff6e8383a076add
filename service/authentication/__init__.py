"""Who calls: credentials, how they are checked, and what is known of the caller afterwards."""
