"""The analog machine as a circuit: netlists, and ngspice that computes them."""
