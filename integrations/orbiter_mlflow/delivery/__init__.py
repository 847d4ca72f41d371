"""Journal, drain and sink: how records reach MLflow. Knows records, not trainers."""
