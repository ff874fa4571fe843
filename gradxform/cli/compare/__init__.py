"""`gradxform compare`: which optimizer, at which learning rate, for this data and model?"""
