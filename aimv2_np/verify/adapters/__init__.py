"""Live models of other libraries, run and watched: one module per library."""
