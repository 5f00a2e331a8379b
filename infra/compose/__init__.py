"""What the containers need beside the images: the Dockerfile and their health probe."""
