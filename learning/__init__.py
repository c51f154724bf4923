"""The pure mathematics of Millrace: no Ray, no Kafka, no MLflow, no clock, no files."""
