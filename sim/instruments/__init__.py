"""Instruments that are played here: their commands, and the analog machine behind them."""
