"""From the weights and metadata of a file to what architectures have tables of: names, shapes, changes, facts."""
