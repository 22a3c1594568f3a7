"""The autograd core: derivatives of a torch function at many points. Pure torch."""

import warnings

# of torch.func, once for each operation: the planner takes another way where this one is slow
warnings.filterwarnings("ignore", "There is a performance drop", UserWarning, append=True)
