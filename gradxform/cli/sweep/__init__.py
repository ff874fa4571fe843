"""`gradxform sweep`: any settings of one method, batched, resumable, from the command line."""
