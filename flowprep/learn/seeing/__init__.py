"""What a network learned: inputs that please a class, and what in a video speaks for a class."""
