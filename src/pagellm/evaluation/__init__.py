"""Floor 6: protocols, page metrics and statistics that judge any page policy."""
