"""An erasure request made ready: who, against which bank, redirected to whom, and who reads photographs."""
