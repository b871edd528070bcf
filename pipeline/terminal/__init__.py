"""What commands show in the terminal: tables, small histograms, a conversation with its taught tokens coloured."""
