"""From images to where things are: markers, lens, plane; pure, no camera is touched here."""
