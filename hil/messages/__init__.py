"""What is said: fixed-layout messages to the microcontroller, Structs between processes."""
