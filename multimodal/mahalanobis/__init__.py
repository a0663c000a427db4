"""A learned Mahalanobis metric, M = L'L, over the vectors of pictures: how it is fitted, chosen, and folded into an export.

    fitted = fit(rows, labels=labels)          # choose.py: the best of several on held-out rows, or the metric as it was
    rows @ fitted.map.T                        # compared by cosine, as stores compare

The square of the distance is (x - y)' M (x - y) = |Lx - Ly|^2, so a metric is a linear map of the vectors, and no store or engine changes.
"""
