"""What forwards of architectures are written with: attention, experts, recurrent layers, positions."""
