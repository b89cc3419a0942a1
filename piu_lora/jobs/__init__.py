"""What people come for: forgetting somebody, and scoring the result. Each job reads from top to bottom."""
