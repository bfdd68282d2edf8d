"""The page of the workstation: plain ES modules, style sheets and one HTML file in ``assets/``, served as they are.

In: nothing. Out: the folder of the page's files. There is no build step, and nothing comes from elsewhere.
Must not know: examinations. The files hold no data; the page fetches everything from ``/v1`` with the access token.
"""
