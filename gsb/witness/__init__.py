"""A witness: another agency, such as the audit office, cosigns only what extends all that it has cosigned before."""
