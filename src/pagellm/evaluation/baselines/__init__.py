"""Methods that a page policy has to beat, behind one protocol."""
