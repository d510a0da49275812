"""The product's verbs: find circuits until enough of them are proven by simulation."""
