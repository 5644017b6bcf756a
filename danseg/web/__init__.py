"""What the service and the page share: limits, a place for each request, uploads, a socket, a stop."""
