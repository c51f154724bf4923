"""What is deployed and how it fits together: configuration, launch, store, stream, snapshots, development broker."""
