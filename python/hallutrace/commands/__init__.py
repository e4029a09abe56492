"""What the commands do and print, a file each; :mod:`hallutrace.commands.app` only names them."""
