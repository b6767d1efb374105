"""The only compiled code: scalar functions, loops over clean arrays, and the drivers that call them."""
