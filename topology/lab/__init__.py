"""A lab on a Docker Engine: images, nodes, the switch, boot and removal."""
