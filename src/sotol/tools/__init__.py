"""What is done with files of models besides running them: converting, splitting, describing."""
