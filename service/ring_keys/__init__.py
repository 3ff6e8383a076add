"""The keys of the key ring: what each is needed for, and the encryption of stored values with the first of them."""
