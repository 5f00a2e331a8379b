"""`routekeel demo`: a real trained model through the whole system, live in the terminal."""
