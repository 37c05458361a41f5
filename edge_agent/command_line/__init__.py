"""What a person types and reads: arguments, files in, answers and status out."""
