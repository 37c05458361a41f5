"""How the operators' command shows answers: values in, rich renderables out."""
