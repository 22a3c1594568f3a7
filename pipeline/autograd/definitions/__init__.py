"""What every operator means at a point: through jvp and vjp, through plain reverse passes, as a sum."""
