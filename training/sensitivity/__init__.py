"""Which layer can take which hardware: predicted from curvatures, compared with what is measured."""
